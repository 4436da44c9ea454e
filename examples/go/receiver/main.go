// Receives the signed webhook of a trigger, and prints each rollout once.
//
//	LISTEN=127.0.0.1:9000 SHOP_WEBHOOK_SECRET=whsec_… go run ./receiver
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type event struct {
	Data struct {
		Trigger string
		Epoch   string
		Number  uint64
		Images  map[string]struct{ Pinned string }
	}
}

func main() {
	webhook, err := standardwebhooks.NewWebhook(strings.TrimSpace(os.Getenv("SHOP_WEBHOOK_SECRET")))
	if err != nil {
		log.Fatal(err)
	}
	var lock sync.Mutex
	last := map[string]event{} // trigger -> its last rollout; a real receiver keeps epoch and number on disk
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		// The signature covers the bytes as they came.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		// Give an http.Header: the library does not find lower-case keys of a plain map.
		if err != nil || webhook.Verify(body, r.Header) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var rollout event
		if err := json.Unmarshal(body, &rollout); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		lock.Lock()
		defer lock.Unlock()
		// A delivery may come twice, and an older one after a newer one. Numbers of a later epoch begin again.
		before := last[rollout.Data.Trigger].Data
		if rollout.Data.Epoch > before.Epoch || rollout.Data.Epoch == before.Epoch && rollout.Data.Number > before.Number {
			fmt.Printf("%s#%d", rollout.Data.Trigger, rollout.Data.Number)
			for _, image := range rollout.Data.Images {
				fmt.Printf(" %s", image.Pinned) // deploy here
			}
			fmt.Println()
			last[rollout.Data.Trigger] = rollout
		}
		w.WriteHeader(http.StatusNoContent)
	})
	listen := os.Getenv("LISTEN")
	if listen == "" {
		listen = "127.0.0.1:9000"
	}
	log.Fatal(http.ListenAndServe(listen, nil))
}
