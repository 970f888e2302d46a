# LongAlign-Go. Needs Go and the Go module proxy; everything else is built here.
#   make run     the main job on the embedded default
#   make test    every test of both modules
#   make drill   the same study, disturbed: the result must be the same

BIN := bin

.PHONY: run build test drill lint clean test-avx512

run: build
	@$(BIN)/starter run --embedded starter/examples/demo.yaml

# The embedded servers are a module of their own: withstack builds them when their sources changed (minutes the first
# time, nothing later) and tries them.
build:
	@mkdir -p $(BIN)
	@go run ./testenv/withstack --bin $(BIN)/devstack -- true
	@go build -buildvcs=auto -o $(BIN)/ ./starter ./worker

test: build lint
	@go run ./testenv/withstack --bin $(BIN)/devstack -- go test ./...
	@go test -C testenv/devstack ./...

lint:
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; test -z "$$unformatted" || { echo "not gofmt'ed: $$unformatted"; exit 1; }
	@go vet ./... && go -C testenv/devstack vet ./...
	@go tool staticcheck ./...
	@go tool workflowcheck -config workflows/workflowcheck.yaml ./workflows/...

drill: build
	@go run ./testenv/drill

clean:
	rm -rf $(BIN)

# The CUDA device: make cuda, make cuda-test, make test-cuda-nogpu.
include gpu/cuda/cuda.mk

# The host's AVX-512 kernels, on any machine, in the Bochs emulator: about five minutes. KERNEL is a Linux kernel to boot;
# gpu/host/emulated_linux_test.go says what to install.
KERNEL ?= $(lastword $(sort $(wildcard /boot/vmlinuz-*)))
test-avx512:
	@LONGALIGN_EMULATE_KERNEL=$(KERNEL) go test -count=1 -timeout 1h -v -run TestAVX512UnderEmulation ./gpu/host
