// Package tokenizer turns text into token IDs and back exactly as the model's own
// tokenizer does: Hugging Face tokenizer.json files with a byte-pair encoding, and
// SentencePiece .model files of type BPE. It also trains small byte-level encodings.
//
// Order, as in Hugging Face tokenizers:
//
//	added tokens → normalizers → pre-tokenizers → BPE → post-processor; decoders back
//
// Files are read from an fs.FS or from bytes; nothing else does I/O. A component that
// is not reproduced exactly is refused by an *UnsupportedError that names it; nothing
// is approximated. As in the reference, patterns see the general categories of
// Unicode 16, and the normal forms are those of Unicode 9, which leave characters assigned
// later as they are.
//
// Text that is not valid UTF-8 is read with U+FFFD for each malformed part, as
// the reference implementations, which take only valid strings, would be given it.
//
// A Tokenizer is immutable and safe for concurrent use. Memory beside the text and the
// result is bounded: normalization works on chunks of about a mebibyte, merging on
// windows, and the caches of words have a fixed size.
package tokenizer
