module example.com/tagtrail-examples

go 1.26

require (
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1
	github.com/tmaxmax/go-sse v0.12.0
)
