// Package activities does the work that workflows order: it loads artifacts, calls pure
// code, and stores artifacts. One file a stage, named as in every layer:
// documents, tokenizer, instructions, tokens, batches, checkpoint, predictions, scores, tables; and for benchmarks questions, judgments.
//
// A stage is asked for by a Call (what to make, from which inputs) and answers with an
// artifact.Ref. Resolve computes the call's action key and says whether the store has
// the result already; the stage's own activity makes it when it has not. Running
// a stage twice, or on two machines at once, is harmless: blobs are named by
// content, and the first manifest wins.
//
// Errors leave this package typed (errors.go): the type says whether Temporal should try again,
// the message what to do.
package activities
