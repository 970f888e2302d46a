package gpu

// HostBuffer is host memory that a device copies to and from by itself (a card needs it pinned). Its slices are HostBuffers too.
type HostBuffer interface {
	Buffer
	// Bytes returns the memory itself, elements in the machine's order. It may be read and written when no transfer of it is
	// under way.
	Bytes() []byte
}

// Event is the end of a transfer.
type Event interface {
	// Wait blocks the caller until the transfer has ended, and returns its failure. Any goroutine may call it.
	Wait() error
}
