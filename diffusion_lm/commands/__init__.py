"""What the commands do that is no part of the library: flags in, words for people out."""
