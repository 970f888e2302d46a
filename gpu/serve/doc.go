// Package serve answers OpenAI-compatible requests from one model on one device: chat
// completions, completions (with echo and log-probabilities, as evaluation harnesses ask for) and models.
//
// Order: engine.go (one goroutine owns the device and decodes several sequences together) → text.go (tokens to
// text, stop strings) → wire.go (what requests may say) → server.go (HTTP) →
// answer.go (one request) → format.go (the objects sent), errors.go.
//
// It is a small, correct server: the queue is bounded (429 when full), every request has a time limit, a
// client that goes away frees its place, and a parameter that would change the
// result but is not implemented is refused rather than ignored.
package serve
