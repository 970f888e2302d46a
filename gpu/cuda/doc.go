// Package cuda is the gpu.Device of an NVIDIA card (compute capability 8.0 and later; Float32 and BFloat16). Opening one takes a
// program built with the tag cuda (make cuda), which links the driver lazily: such a program also starts where there is none.
//
// How it is built. A Device checks shapes and turns each operation into launches of the kernels in gpu/cuda/kernels, on a
// machine: the card (card.go, through gorgonia.org/cu and a launcher of our own) or the emulator of gpu/cuda/emulator, on
// which the shared device suite runs without a card. Kernels are compiled for the card's architecture at first use and kept on
// disk by the hash of everything that went in.
//
// Reductions have a fixed order: no kernel adds floats atomically but in the fast mode that a device's name asks for, and no order depends on the number of multiprocessors.
// Matrix products go to cuBLASLt where it is found and to kernels of our own where it is not; which one is part of Info.Class,
// because their bits differ.
//
// In a BFloat16 model gradients of weights and statistics are Float32; operations also accept them in BFloat16, rounding
// each addition.
//
// Operations are queued on one stream. Those that return host values (SquaredNorm, CrossEntropy, Download) wait for it.
package cuda
