// Package train trains a llama.Model: optimizer steps over micro-batches, exact loss weights,
// schedules, checkpoints that resume bit for bit.
//
// Order: options.go → schedule.go → trainer.go (one step) → loop.go (many) →
// state.go (what a checkpoint holds) → checkpoints.go (a directory of them); memory.go estimates, parity.go proves that a step does
// not depend on how its sequences are laid out.
//
// There is no randomness here: a step is a function of the state and its micro-batches. The random
// choices lie in the plan, which is made before and is addressed by step number.
// Units: tokens, bytes, seconds. Losses are in nats.
package train
