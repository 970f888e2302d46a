package train

// SetChunk makes offloaded state move n parameters at a time, until restore is called.
func SetChunk(n int) (restore func()) {
	was := chunk
	chunk = n
	return func() { chunk = was }
}
