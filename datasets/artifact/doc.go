// Package artifact keeps what the pipeline makes: content-addressed blobs, the manifests that say what they mean and
// what they were made from, the pointers to work in progress, and the records of runs.
//
// A Store lives under one root (file:///dir, s3://bucket/prefix, mem://name) and nothing is shared across roots:
//
//	blobs/sha256/ab/<hex>                       immutable bytes, named by their hash
//	actions/<stage>/<key>/<generation>.json     manifests: one a result, first writer wins, never edited
//	pointers/<name>.json                        small values changed by conditional write, fenced by an epoch
//	runs/<id>/<run id>.json                     what a run was asked, what it used and how it ended
//	claims/<hex>                                keep an old blob that is about to be used again from garbage collection
//
// Order in which things are written, so that whatever is visible is complete: blobs, then the manifest that names
// them, then the pointer or run record that names the manifest.
//
// Nothing that was read is trusted. Blobs are hashed on every read, those larger than PartSize (16 MiB) in parts as
// well, so that ranges are verified too; manifests, pointers and run records carry a hash of their own content. Wrong
// bytes are a *CorruptError that names the object. A corrupt object is never overwritten: the next generation of the
// manifest names a fresh copy.
//
// Sizes are bytes, times are UTC, digests are written "sha256:<64 hex digits>". The package does no network I/O; the
// S3 backend is datasets/artifact/s3, registered by importing it. Every backend passes datasets/artifact/storetest.
package artifact
