// Tlogcheck verifies a static transparency log (C2SP tlog-tiles) in a directory, by the Go project's own
// implementation of notes and tiled trees, and shares nothing with the software that wrote it.
//
//	usage: tlogcheck <directory>
//
// The directory holds, and every file of these names is checked:
//
//	vkey                          the log's verifier key, one line
//	checkpoint                    the newest signed checkpoint
//	tile/<L>/<N>[.p/<W>]          hash tiles; every one that the checkpoint's size calls for must be there
//	tile/entries/<N>[.p/<W>]      entries; together they must cover the whole log
//	checkpoint.<size>             earlier signed checkpoints: the log must have grown from each (optional)
//	<name>.tlog-proof             C2SP tlog-proof files (optional), each beside
//	<name>.record                 the raw record that it proves
//	<name>.add-checkpoint         requests to a witness (optional): "old <size>", a consistency path, an
//	                              empty line, a checkpoint; each beside its checkpoint.<size>
//
// It exits 0 with one line that says what was verified, or 1 with one that says what does not hold.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: tlogcheck <directory>")
		os.Exit(2)
	}
	summary, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "tlogcheck:", err)
		os.Exit(1)
	}
	fmt.Println(summary)
}

// A log is a directory and the head that its checkpoint signs. Its ReadTiles makes it a tlog.TileReader.
type log struct {
	dir  string
	key  note.Verifier
	head tlog.Tree
}

func check(dir string) (summary string, err error) {
	vkey, err := os.ReadFile(filepath.Join(dir, "vkey"))
	if err != nil {
		return "", err
	}
	l := &log{dir: dir}
	if l.key, err = note.NewVerifier(strings.TrimSuffix(string(vkey), "\n")); err != nil {
		return "", fmt.Errorf("vkey: %w", err)
	}
	if l.head, err = l.openFile("checkpoint"); err != nil {
		return "", err
	}
	tiles, err := l.checkTiles()
	if err != nil {
		return "", err
	}
	counts := make([]int, 3)
	for i, kind := range []struct {
		pattern string
		check   func(name string) error
	}{
		{"checkpoint.*", l.checkEarlier},
		{"*.tlog-proof", l.checkProof},
		{"*.add-checkpoint", l.checkGrowth},
	} {
		names, err := filepath.Glob(filepath.Join(dir, kind.pattern))
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if err := kind.check(filepath.Base(name)); err != nil {
				return "", fmt.Errorf("%s: %w", filepath.Base(name), err)
			}
		}
		counts[i] = len(names)
	}
	return fmt.Sprintf("%s: %d records, %d tile files, %d earlier checkpoints, %d inclusion proofs, %d consistency proofs verified",
		l.key.Name(), l.head.N, tiles, counts[0], counts[1], counts[2]), nil
}

// openFile opens a signed checkpoint in the directory.
func (l *log) openFile(name string) (tlog.Tree, error) {
	signed, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		return tlog.Tree{}, err
	}
	head, err := l.open(signed)
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("%s: %w", name, err)
	}
	return head, nil
}

// open verifies a signed note and reads the checkpoint that is its text.
func (l *log) open(signed []byte) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(l.key))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] != l.key.Name() {
		return tlog.Tree{}, fmt.Errorf("not a checkpoint of %s: %q", l.key.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("malformed size %q", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// Height is of the interface tlog.TileReader.
func (l *log) Height() int { return tileHeight }

// SaveTiles is of the interface tlog.TileReader; the tiles are where they should be already.
func (l *log) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles is of the interface tlog.TileReader. A full tile may stand in for a partial one.
func (l *log) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(tiles))
	for i, t := range tiles {
		data, err := os.ReadFile(filepath.Join(l.dir, filepath.FromSlash(publicPath(t))))
		if errors.Is(err, fs.ErrNotExist) && t.W < tileWidth {
			full := t
			full.W = tileWidth
			data, err = os.ReadFile(filepath.Join(l.dir, filepath.FromSlash(publicPath(full))))
			if len(data) == tileWidth*tlog.HashSize {
				data = data[:t.W*tlog.HashSize]
			}
		}
		if err != nil {
			return nil, err
		}
		all[i] = data
	}
	return all, nil
}

// publicPath is a tile's path by C2SP tlog-tiles, which fixes the height and says "entries" for "data".
func publicPath(t tlog.Tile) string {
	path := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	if strings.HasPrefix(path, "data/") {
		path = "entries/" + strings.TrimPrefix(path, "data/")
	}
	return "tile/" + path
}

func parsePublicPath(path string) (tlog.Tile, error) {
	rest := strings.TrimPrefix(path, "tile/")
	if strings.HasPrefix(rest, "entries/") {
		rest = "data/" + strings.TrimPrefix(rest, "entries/")
	}
	t, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", tileHeight, rest))
	if err == nil && publicPath(t) != path {
		err = fmt.Errorf("malformed tile path %q", path)
	}
	return t, err
}

// checkTiles checks every file under tile/, and that none is missing.
func (l *log) checkTiles() (count int, err error) {
	// Every hash that this reader gives is proven to be in the tree of the checkpoint.
	reader := tlog.TileHashReader(l.head, l)
	if _, err := reader.ReadHashes(nil); err != nil {
		return 0, err
	}
	covered := make([]bool, l.head.N)
	err = filepath.WalkDir(filepath.Join(l.dir, "tile"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		path, err := filepath.Rel(l.dir, name)
		if err != nil {
			return err
		}
		t, err := parsePublicPath(filepath.ToSlash(path))
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if t.L < 0 {
			err = checkEntries(t, data, reader, covered)
		} else {
			err = checkHashes(t, data, reader)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		count++
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, t := range tlog.NewTiles(tileHeight, 0, l.head.N) {
		if _, err := l.ReadTiles([]tlog.Tile{t}); err != nil {
			return 0, err
		}
	}
	for position, ok := range covered {
		if !ok {
			return 0, fmt.Errorf("no entry for position %d", position)
		}
	}
	return count, nil
}

func checkHashes(t tlog.Tile, data []byte, reader tlog.HashReader) error {
	proven, err := tlog.ReadTileData(t, reader)
	if err != nil {
		return err
	}
	if !bytes.Equal(data, proven) {
		return errors.New("these are not the hashes of the tree")
	}
	for i := 0; i < t.W; i++ {
		first := t.N<<tileHeight + int64(i)
		hash, err := tlog.HashFromTile(t, data, tlog.StoredHashIndex(t.L*tileHeight, first))
		if err != nil {
			return err
		}
		if !bytes.Equal(hash[:], data[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
			return fmt.Errorf("hash %d is not where it should be", i)
		}
	}
	return nil
}

func checkEntries(t tlog.Tile, data []byte, reader tlog.HashReader, covered []bool) error {
	hashTile := tlog.Tile{H: t.H, L: 0, N: t.N, W: t.W}
	proven, err := tlog.ReadTileData(hashTile, reader)
	if err != nil {
		return err
	}
	for i := 0; i < t.W; i++ {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return fmt.Errorf("the bytes end within entry %d of %d", i, t.W)
		}
		length := int(binary.BigEndian.Uint16(data))
		record := data[2 : 2+length]
		data = data[2+length:]
		position := t.N<<tileHeight + int64(i)
		hash, err := tlog.HashFromTile(hashTile, proven, tlog.StoredHashIndex(0, position))
		if err != nil {
			return err
		}
		if tlog.RecordHash(record) != hash {
			return fmt.Errorf("entry %d is not the record at position %d", i, position)
		}
		covered[position] = true
	}
	if len(data) != 0 {
		return fmt.Errorf("%d bytes follow the last entry", len(data))
	}
	return nil
}

// checkEarlier proves by the tiles that the log has grown from an earlier checkpoint.
func (l *log) checkEarlier(name string) error {
	old, err := l.openFile(name)
	if err != nil {
		return err
	}
	if name != fmt.Sprintf("checkpoint.%d", old.N) {
		return fmt.Errorf("this is the checkpoint of size %d", old.N)
	}
	path, err := tlog.ProveTree(l.head.N, old.N, tlog.TileHashReader(l.head, l))
	if err != nil {
		return err
	}
	return tlog.CheckTree(path, l.head.N, l.head.Hash, old.N, old.Hash)
}

// checkProof verifies a C2SP tlog-proof file against the record beside it.
func (l *log) checkProof(name string) error {
	record, err := os.ReadFile(filepath.Join(l.dir, strings.TrimSuffix(name, ".tlog-proof")+".record"))
	if err != nil {
		return err
	}
	lines, head, err := l.aboveCheckpoint(name)
	if err != nil {
		return err
	}
	if lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("not a proof file: %q", lines[0])
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		if _, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(lines[0], "extra ")); err != nil {
			return err
		}
		lines = lines[1:]
	}
	index, path, err := numberAndPath("index ", lines)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(path, head.N, head.Hash, index, tlog.RecordHash(record))
}

// checkGrowth verifies the body of a C2SP tlog-witness add-checkpoint request.
func (l *log) checkGrowth(name string) error {
	lines, head, err := l.aboveCheckpoint(name)
	if err != nil {
		return err
	}
	size, path, err := numberAndPath("old ", lines)
	if err != nil {
		return err
	}
	old, err := l.openFile(fmt.Sprintf("checkpoint.%d", size))
	if err != nil {
		return err
	}
	return tlog.CheckTree(path, head.N, head.Hash, old.N, old.Hash)
}

// aboveCheckpoint reads a file of lines, an empty line, and a signed checkpoint.
func (l *log) aboveCheckpoint(name string) ([]string, tlog.Tree, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		return nil, tlog.Tree{}, err
	}
	above, signed, _ := strings.Cut(string(data), "\n\n")
	head, err := l.open([]byte(signed))
	return strings.Split(above, "\n"), head, err
}

// numberAndPath reads a line that begins with word and goes on with a number, then a hash a line.
func numberAndPath(word string, lines []string) (int64, []tlog.Hash, error) {
	if len(lines) == 0 || !strings.HasPrefix(lines[0], word) {
		return 0, nil, fmt.Errorf("no line that begins with %q", word)
	}
	number, err := strconv.ParseInt(strings.TrimPrefix(lines[0], word), 10, 64)
	if err != nil {
		return 0, nil, err
	}
	var path []tlog.Hash
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return 0, nil, err
		}
		path = append(path, hash)
	}
	return number, path, nil
}
