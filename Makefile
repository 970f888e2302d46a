# LongAlign-Go. Needs Go and the Go module proxy; everything else is built here.
#   make run     the main job on the embedded default
#   make test    every test of both modules
#   make drill   the same study, disturbed: the result must be the same

BIN := bin
GOBUILD := CGO_ENABLED=0 go build -buildvcs=auto

.PHONY: run build test drill lint clean

run: build
	@$(BIN)/starter run --embedded starter/examples/demo.yaml

build: $(BIN)/devstack
	@mkdir -p $(BIN)
	@$(GOBUILD) -o $(BIN)/ ./starter ./worker

# The embedded servers are a module of their own. The first build takes minutes, later ones seconds.
$(BIN)/devstack: $(wildcard testenv/devstack/*.go) testenv/devstack/go.mod
	@mkdir -p $(BIN)
	@echo "building the embedded Temporal, UI and store (some minutes the first time) …" >&2
	@CGO_ENABLED=0 go build -C testenv/devstack -buildvcs=auto -o ../../$(BIN)/devstack .

test: build lint
	@go run ./testenv/withstack --bin $(BIN)/devstack -- go test ./...
	@go test -C testenv/devstack ./...

lint:
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; test -z "$$unformatted" || { echo "not gofmt'ed: $$unformatted"; exit 1; }
	@go vet ./... && go -C testenv/devstack vet ./...
	@go tool staticcheck ./...
	@go tool workflowcheck ./workflows/...

drill: build
	@go run ./testenv/drill

clean:
	rm -rf $(BIN)
