// Package workflows orders the stages of an experiment. It is deterministic: the same
// history replays to the same commands, and everything that touches the world is an activity.
//
//	Study       a grid of experiments (methods × seeds); one experiment is a grid of one
//	 └ Stage    one stage of one or many cells, a child workflow named stage-<stage>-<key>
//
// experiment.go holds the flow, stage.go how a stage is found in the store, awaited or
// made, spec.go the YAML, policies.go how activities are retried. History holds references, never data.
// Activity errors are returned unwrapped: wrapped, they would lose their type.
package workflows
