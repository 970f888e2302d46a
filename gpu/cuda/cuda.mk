# Builds with the tag cuda. They need a C compiler and no NVIDIA package: the header is our own, and the driver is looked up when
# the program first asks for a card.
#   make cuda             bin/starter and bin/worker with the device
#   make test-cuda-nogpu  the kernels on the emulator, and compiled by NVRTC where that library is
#   make cuda-test        bin/cuda.test, to copy to a machine with a card and run there
#   make cuda-day-files   bin/cuda-day: all that a day with a card needs, in one folder to copy; there: cd cuda-day && ./bench day
#   make cuda-day         the same, and runs it here
# CUDA_HEADERS=/usr/local/cuda/include builds with NVIDIA's headers (11.8, 12, 13) in place of our own: the same program.

CUDA_STUB := $(abspath $(or $(BIN),bin))/cuda
CUDA_INCLUDE = $(if $(CUDA_HEADERS),-I$(CURDIR)/gpu/cuda/driver/vendor -I$(CUDA_HEADERS),-I$(CURDIR)/gpu/cuda/driver/include)
# Go's cache of builds does not see that a header or the stub changed; it sees that a flag did.
CUDA_SOURCES_SUM = $(firstword $(shell cat gpu/cuda/driver/lazy.c gpu/cuda/driver/include/* gpu/cuda/driver/vendor/* $(wildcard $(CUDA_HEADERS)/cuda.h) | cksum))
CUDA_ENV = CGO_ENABLED=1 CGO_CFLAGS="-O2 -DLONGALIGN_SOURCES=$(CUDA_SOURCES_SUM) $(CUDA_INCLUDE)" CGO_LDFLAGS="-L$(CUDA_STUB) -ldl -lpthread"

.PHONY: cuda cuda-test cuda-day-files cuda-day test-cuda-nogpu

$(CUDA_STUB)/libcuda.a: gpu/cuda/driver/lazy.c gpu/cuda/driver/include/cuda.h gpu/cuda/driver/include/calls.def
	@mkdir -p $(CUDA_STUB)
	@$(or $(CC),cc) -O2 -fPIC -Igpu/cuda/driver/include -c $< -o $(CUDA_STUB)/lazy.o
	@rm -f $@ && ar rcs $@ $(CUDA_STUB)/lazy.o

cuda: $(CUDA_STUB)/libcuda.a
	@$(CUDA_ENV) go build -tags cuda -o $(or $(BIN),bin)/ ./starter ./worker

cuda-test: $(CUDA_STUB)/libcuda.a
	@$(CUDA_ENV) go test -tags cuda -c -o $(or $(BIN),bin)/cuda.test ./gpu/cuda

CUDA_DAY := $(abspath $(or $(BIN),bin))/cuda-day

cuda-day-files: $(CUDA_STUB)/libcuda.a
	@mkdir -p $(CUDA_DAY)
	@$(CUDA_ENV) go test -tags cuda -c -o $(CUDA_DAY)/cuda.test ./gpu/cuda
	@$(CUDA_ENV) go build -tags cuda -o $(CUDA_DAY)/bench ./gpu/cuda/bench
	@cp gpu/cuda/bench/rival.py $(CUDA_DAY)/
	@echo "$(CUDA_DAY) holds bench, cuda.test and rival.py"

cuda-day: cuda-day-files
	@cd $(CUDA_DAY) && ./bench day

test-cuda-nogpu: $(CUDA_STUB)/libcuda.a
	@$(CUDA_ENV) go vet -tags cuda ./gpu/cuda/... ./gpu/devices
	@$(CUDA_ENV) go tool staticcheck -tags cuda ./gpu/cuda/... ./gpu/devices
	@$(CUDA_ENV) go test -tags cuda ./gpu/cuda/... ./gpu/devices
