"""What others vouch for: witnesses and timestamp authorities; and being a witness of theirs."""
