// Package activities does the work that workflows order: it loads artifacts, calls pure
// code, and stores artifacts.
//
// A stage is asked for by a Call (what to make, from which inputs) and answers with an
// artifact.Ref. Resolve computes the call's action key and says whether the store has
// the result already; the stage's own activity makes it when it has not. Running
// a stage twice, or on two machines at once, is harmless: blobs are named by
// content, and the first manifest wins.
//
// Errors leave this package typed (errors.go): the type says whether Temporal should try again,
// the message what to do.
//
// Where what is:
//
//	how any stage is made    stage.go key.go shards.go errors.go progress.go await.go run.go
//	the outside world        connect.go device.go scratch.go sources.go, package llm
//	stages, as data flows    documents.go tokenizer.go instructions.go mix.go pretrain.go sequences.go tokens.go
//	                         batches.go checkpoint.go resume.go predictions.go scores.go tables.go charges.go ratings.go
//	benchmarks               questions.go benchmarkfiles.go answers.go answerlog.go endpointanswers.go judgments.go
//	                         canary.go benchmarkscores.go longbenchscores.go harness.go benchmarktables.go
//	before a run             rehearsal.go forecast.go
//	after it, from the store verify.go recompute.go differences.go explain.go lineage.go leads.go
package activities
