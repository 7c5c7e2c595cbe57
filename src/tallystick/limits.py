"""Every bound, with its reason. Checked on the way in and again on reading back."""

from __future__ import annotations

from typing import Final

RECORD_BYTES_MAX: Final = 65_535
"""A sealed record; the length prefix of a tlog-tiles entry is a uint16."""

DRAFT_BYTES_MAX: Final = RECORD_BYTES_MAX - 512
"""The canonical parts of a draft; the sealer adds position, hashes and times, under 512 bytes."""

INPUT_BYTES_MAX: Final = 262_144
"""One event as it arrives: white space and escapes may make it longer than its canonical form."""

DEPTH_MAX: Final = 32
"""Nesting of objects and arrays in a record, the record itself included; parsers recurse."""

INTEGER_MAX: Final = 2**53 - 1
"""The largest integer that every JSON implementation reads exactly (RFC 8785, RFC 7493)."""

EVENT_TYPE_CHARACTERS_MAX: Final = 200
ENTITY_ID_CHARACTERS_MAX: Final = 512
EVENT_ID_CHARACTERS_MAX: Final = 128
"""Keys of the index: bounded so that its pages hold many."""

LABELS_MAX: Final = 64
LABEL_CHARACTERS_MAX: Final = 100
"""Labels classify (`phi`, `pci`); what needs more of them is data and belongs in the payload."""

NAME_CHARACTERS_MAX: Final = 200
"""A deployment or ledger name; it stands in every checkpoint and key line."""

NOTE_BYTES_MAX: Final = 65_536
NOTE_SIGNATURES_MAX: Final = 100
"""A signed note: C2SP asks verifiers to accept at least 16 signatures; more than 100 is abuse."""

PROOF_HASHES_MAX: Final = 63
"""An inclusion path in the largest tree, 2^63 - 1 leaves."""

SIZE_MAX: Final = 2**63 - 1
"""The largest tree size that C2SP checkpoints may name."""

BATCH_EVENTS_MAX: Final = 10_000
BATCH_BYTES_MAX: Final = 67_108_864
"""Events sealed as one, and their canonical bytes: all are in memory several times over."""

COMMIT_BYTES_MAX: Final = 8_388_608
"""Canonical bytes that one commit takes of several callers; bounds memory, and how long one may wait behind others."""

WAITING_EVENTS_MAX: Final = 100_000
WAITING_BYTES_MAX: Final = 67_108_864
"""Events waiting for the sealer, and their canonical bytes; past either an append is refused with `BusyError` (I1)."""

READ_RECORDS_MAX: Final = 256
"""Records that are read at once: of the largest 16 MiB. More at once is hardly faster."""

EPOCH_RECORDS_MAX: Final = 1_000_000
EPOCH_SECONDS_MAX: Final = 86_400
"""An epoch is closed at the next append after either: a disclosed key then uncovers one day."""

CLOCK_TOLERANCE_MICROSECONDS: Final = 300_000_000
"""How far two clocks may be apart without a word."""

CLOCK_AHEAD_MAX_MICROSECONDS: Final = 86_400_000_000
"""How far a clock may be ahead of another before nothing is sealed by it, and what was is a finding."""

CLOCK_IDLE_MAX_MICROSECONDS: Final = 366 * 86_400_000_000
"""How long a ledger may have rested, by a clock that nothing else bears out: ten years ahead is no such rest."""

CLOCK_PRUNE_MAX_MICROSECONDS: Final = 31 * 86_400_000_000
"""How far the newest record may be from the clock for a prune to go by it, unless somebody says that it is right."""

PAGE_RECORDS_MAX: Final = 1_000
PAGE_BYTES_MAX: Final = 8_388_608
"""Records of one page, and their bytes; they are all in memory, and in one answer of the service."""

BUCKETS_MAX: Final = 600_000
"""Buckets of one series: a leap year of minutes is 527,040."""

ANSWERED_POINTS_MAX: Final = 50_000
"""Points of a series over HTTP: some ten megabytes of one answer, five years of hours or a month of minutes."""

SERIES_BYTES_MAX: Final = 41_943_040
"""What one series over HTTP takes while it is made: its points are four fifths of it."""

SERIES_GROUPS_MAX: Final = 10_000
"""Groups of one series: more than anyone looks at, and each may have a value in every bucket."""

SERIES_DISTINCT_MAX: Final = 2_000_000
"""Names told apart in one series, where records have to be read: all are in memory, about 100 bytes each."""

ROLLUPS_MAX: Final = 100
"""Stored roll-ups of one ledger: each is looked after whenever the index is saved."""

ROLLUP_NAME_CHARACTERS_MAX: Final = 100
ROLLUP_CELLS_MAX: Final = 600_000
"""Cells of a roll-up that one answer adds up."""

PRUNE_CELLS_MAX: Final = 100_000
"""Cells that one prune seals of all roll-ups: all are in memory, as events too. What comes to more goes in parts."""

STATS_NAMES_MAX: Final = 1_000
"""Labels and event types that are listed by name when it is asked how much there is: more than anyone reads."""

ZONE_CHARACTERS_MAX: Final = 64
"""The name of a time zone; the longest that IANA has is half as long."""

QUERY_BYTES_MAX: Final = 16_384
"""A query in a URL, percent-encoded; most proxies take no longer lines."""

QUERY_TERMS_MAX: Final = 256
QUERY_VALUES_MAX: Final = 100
"""Terms of a query, and values of one name: each may cost the index a lookup."""

QUERY_TERM_CHARACTERS_MAX: Final = 2_048
"""One term: an entity id with room, or a long path with its value."""

QUERY_CONDITIONS_MAX: Final = 32
QUERY_TEXT_CHARACTERS_MAX: Final = 1_000
QUERY_WORDS_MAX: Final = 32
"""Conditions on members, and a free-text search with its words: each is held against every candidate."""

PERIOD_DAYS_MAX: Final = 36_600
"""A retention period: a hundred years, the longest that any rule asks for; beyond it there is `forever`."""

POLICY_LABELS_MAX: Final = 256
"""Labels with a period of their own: the policy is one record."""

HOLDS_MAX: Final = 1_000
"""Legal holds in force at once: each prune names them all, and asks the index about each."""

HOLD_NAME_CHARACTERS_MAX: Final = 100
REASON_CHARACTERS_MAX: Final = 1_000
"""Why something was ordered; a document belongs elsewhere, and its name and hash here."""

MANIFEST_BYTES_MAX: Final = 67_108_864
SEAL_BYTES_MAX: Final = 4_096
"""A bundle's manifest and its signature: they are read whole."""

BUNDLE_EVENTS_BYTES_MAX: Final = 2**40
BUNDLE_LINES_MAX: Final = 2**31
"""The records of a bundle: a stream, so that only its reading takes time."""

BUNDLE_RECORDS_MAX: Final = 100_000
"""Records and MAC keys beside the stream: two records and a key for each day of 130 years."""

BUNDLE_HASHES_MAX: Final = 1_000_000
"""Hashes of a bundle, and ranges of absent positions: both are held in memory."""

FILTERED_RECORDS_MAX: Final = 100_000
"""Records of a filtered bundle: each may need twenty hashes in the manifest."""

SELECTORS_MAX: Final = 256
SELECTOR_ALTERNATIVES_MAX: Final = 64
SELECTOR_TERMS_MAX: Final = 10_000
SELECTOR_CONDITIONS_MAX: Final = 1_000
SELECTOR_TERM_CHARACTERS_MAX: Final = 4_096
"""The selectors of a bundle: terms and conditions are counted over all of them, as each may be asked of each record."""

SELECTOR_NAME_CHARACTERS_MAX: Final = 100
SELECTOR_NAMES_BYTES_MAX: Final = 32_768
"""Their names, which the record of an export must have room for."""

TIMESTAMPS_MAX: Final = 16
TIMESTAMP_BYTES_MAX: Final = 65_536
"""Timestamps of a bundle, and one of them with its authority's chain of certificates."""

POLICY_BYTES_MAX: Final = 65_536
POLICY_LINES_MAX: Final = 256
"""A trust file; C2SP asks for at least 32 logs, witnesses and groups."""

QUEUE_EVENTS_MAX: Final = 1_000_000
QUEUE_BYTES_MAX: Final = 1_073_741_824
"""What may wait in the queue: past either an event is refused with `BusyError`, never dropped."""

SCHEMA_BYTES_MAX: Final = 49_152
"""One schema in canonical JSON: it stands in one record, beside its name and reason."""

SCHEMA_DEPTH_MAX: Final = DEPTH_MAX - 2
"""Nesting of a schema: it stands in a record's payload."""

SCHEMA_PARTS_MAX: Final = 2_000
"""Schemas within a schema, once every `$ref` stands as what it names: each may be held against a part of an event."""

SCHEMA_PARTS_DEPTH_MAX: Final = 64
"""How deep they nest then: an event nests half as deep, and what is behind a `$ref` may be behind another."""

SCHEMAS_MAX: Final = 2_000
SCHEMAS_BYTES_MAX: Final = 15_728_640
"""Versions of schemas in one ledger, and their bytes in canonical JSON: all are in memory, and in one answer."""

SCHEMAS_READ_BYTES_MAX: Final = 8_388_608
"""Bytes of the schemas of all ledgers of a process that are kept compiled: some thirty times as much of memory."""

PATTERN_CHARACTERS_MAX: Final = 1_000
PATTERN_BYTES_MAX: Final = 262_144
PATTERN_CACHE_BYTES_MAX: Final = 8_388_608
"""A pattern, what it may take compiled, and what matching may keep: the time is in proportion to the second and the
text, and with so much kept the worst pattern that we could make took 0.1 s for a whole event (1.7 s with less)."""

INFERRED_MEMBERS_MAX: Final = 500
"""Members of one object in an inferred schema: past it the object is taken for a map, whose names mean nothing."""

INFERRED_DEPTH_MAX: Final = 8
"""Nesting up to which an inferred schema says more than the type."""

INFERRED_PARTS_MAX: Final = 10_000
"""Members, elements and listed texts of a whole inferred schema, long names counted several times: in memory each takes
a kilobyte and a half, and a schema that is registered has a fifth of them."""

TENANT_NAME_CHARACTERS_MAX: Final = 63
"""A tenant's name, with room in a ledger's name and a folder's; as long as a DNS label."""

TENANTS_MAX: Final = 100_000
"""Tenants of one deployment: the directory of them is in memory, about 500 bytes each."""

LEDGERS_OPEN_MAX: Final = 256
"""Ledgers that a deployment has open at once: each takes some eighteen file handles, and a few megabytes."""

KEY_NAME_CHARACTERS_MAX: Final = 200
KEY_SCOPES_MAX: Final = 64
"""Bounds of a key: each is held against every event that comes with it."""

BODY_BYTES_MAX: Final = 16_777_216
"""A batch over HTTP, unpacked: 10,000 events of more than a kilobyte; larger ones come in parts."""

STREAM_READERS_MAX: Final = 4_000
STREAM_READERS_TENANT_MAX: Final = 2_000
"""Readers of streams of one process, and of one tenant: each is a connection, and is written to whenever something
comes."""

STREAM_PIECE_BYTES: Final = 1_048_576
"""Records that are given to readers of a stream at once; one record may be all of it."""

STREAM_WAITING_BYTES_MAX: Final = 4_194_304
STREAMS_WAITING_BYTES_MAX: Final = 67_108_864
"""What a reader of a stream may leave unread, and all readers of a process together, where what several have is counted
once: past this those who read slowly are let go, with the place to go on from."""

JOBS_WAITING_MAX: Final = 8
"""Jobs of one tenant that wait or run: they are done two at a time, and others have some, too."""

JOBS_KEPT_MAX: Final = 100
"""Jobs of one tenant that are kept, with the bundles that they made: each may be as large as the ledger."""

SETTINGS_BYTES_MAX: Final = 65_536
"""A file of settings: all there are, with a page of comments on each."""

PLAN_NAME_CHARACTERS_MAX: Final = 60
PLANS_MAX: Final = 1_000
"""Plans of one deployment: all are in memory, and looked through by people."""

PLAN_EVENTS_MAX: Final = 10**12
PLAN_RATE_MAX: Final = 1_000_000
"""Bounds of bounds: a number past these was meant for something else."""

QUOTA_TENANTS_MAX: Final = 10_000
"""Tenants whose use is in memory; of others it is counted again when they come."""

TOKEN_BYTES_MAX: Final = 8_192
"""A token of an identity provider: with a user in a hundred groups it has some four thousand."""

TOKEN_SUBJECT_CHARACTERS_MAX: Final = 255
"""Who a token is about; OpenID Connect allows no more."""

TOKENS_KNOWN_MAX: Final = 10_000
"""Tokens that were judged lately, by their hash: each is about a kilobyte in memory."""

ISSUER_CHARACTERS_MAX: Final = 512
"""An issuer's URL: it stands in every event whose actor it vouches for."""

ISSUER_KEYS_MAX: Final = 64
ISSUER_KEY_BITS_MAX: Final = 8_192
"""Keys of an issuer, of which two or three are usual, and the largest of RSA: checking a signature takes its square."""

ISSUER_ANSWER_BYTES_MAX: Final = 262_144
"""What an issuer says of itself, and its keys: with certificates, some kilobytes each."""

CLAIM_CHARACTERS_MAX: Final = 256
CLAIM_VALUES_MAX: Final = 256
"""The name of a claim, and values of it that are mapped to roles: each is held against every token."""

CLIENT_ANSWER_BYTES_MAX: Final = 134_217_728
"""What a client reads of one answer: a page of a thousand of the largest records is half of it."""

BUNDLE_ZIP_BYTES_MAX: Final = 2**40
"""A bundle that a client fetches: it is written to the disk as it comes, and so only takes time and room."""

SENDING_EVENTS_MAX: Final = 10_000
SENDING_BYTES_MAX: Final = 33_554_432
"""Events that wait in memory to be sent from an application: past either they are dropped, counted, and told of."""

BACKUP_MANIFEST_BYTES_MAX: Final = 268_435_456
BACKUP_FILES_MAX: Final = 1_000_000
"""A backup's manifest, which is read whole, and the files that it names: some hundred thousand ledgers."""

BACKUP_FILE_BYTES_MAX: Final = 2**44
"""One file of a backup: sixteen terabytes, past which a ledger rests somewhere else than in one file."""

VERIFIED_BYTES_MAX: Final = 134_217_728
"""What a service remembers of its verifications: twenty findings each of some ten thousand ledgers."""

HISTORY_TURNS_MAX: Final = 10_000
"""Turns of one history over HTTP: all of them are in one answer."""

BODIES_BYTES_MAX: Final = 100_663_296
TENANT_BODIES_BYTES_MAX: Final = 50_331_648
"""Bodies that one process has in memory, of all callers together and of one tenant's, as they came, unpacked, and split
into events: three of the largest batches, and half of that."""

ANSWER_BYTES_MAX: Final = 16_777_216
"""A history, a state or a difference over HTTP: what is rendered, and the records that it is made of."""

ANSWERS_BYTES_MAX: Final = 134_217_728
TENANT_ANSWERS_BYTES_MAX: Final = 67_108_864
"""Answers that one process has in memory, of all callers together and of one tenant's: of the largest eight, and half
of that."""

UNPACKED_AT_ONCE_BYTES: Final = 1_048_576
"""What a packed body becomes before it is counted."""
