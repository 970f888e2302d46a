// Package llama runs and trains LLaMA-type models over a gpu.Device and reads and writes
// them as Hugging Face model directories: LLaMA 2/3, Mistral, Qwen 2/2.5, Qwen 3 and ChatGLM 2/3.
//
// Order: config.go and fields.go (what a config.json means) → params.go (tensor names and their place in
// memory) → model.go (initialise) → load.go, save.go → forward.go → backward.go → decode.go
// (KV cache) → generate.go.
//
// A layer is x += Wo·attention(rope(Wq n), rope(Wk n), Wv n), n = rmsnorm(x), then
// x += Wdown·(silu(Wgate n)·(Wup n)), n = rmsnorm(x). Shapes as in package gpu: T tokens, D width, H heads, G key/value heads, E head
// width, F feed-forward width, V vocabulary. Sequences of a micro-batch lie end to end
// and do not see each other.
//
// A Model is used by one goroutine at a time, as its device is.
package llama
