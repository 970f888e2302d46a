// Package datasets turns documents into training batches. It performs no I/O of its own.
//
// Order: documents → instructions → tokens → batches. Each stage has a file of its name here with
// its parameter type and what it produces; what takes more code lies in a package of the
// same name below. Stages are pure functions of their inputs, parameters and seeds.
//
// A [Document] becomes, through a teacher, an [Instance] (a conversation about it), through a
// tokenizer and a chat template a [Sequence] (tokens and labels), and by a [Plan] a part of a micro-batch
// ([Pack]) of an optimizer step. A step's loss weights each sequence by [Coefficients].
//
// Lengths are tokens unless a name says otherwise. Sequences are numbered from 0. Randomness is [Rand]'s.
//
// The recipe is LongAlign's (arXiv 2401.18058): section 3.1 builds the data, 3.2 the batches and losses.
package datasets
