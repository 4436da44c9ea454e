// Follows the live feed. The library reconnects by itself, and goes on after the last event.
//
//	TAGTRAIL_API=http://127.0.0.1:8401 go run ./follower
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/tmaxmax/go-sse"
)

type revision struct {
	Subject string
	Data    struct {
		Revision uint64
		Digest   string
	}
}

func main() {
	api := os.Getenv("TAGTRAIL_API")
	if api == "" {
		api = "http://127.0.0.1:8401"
	}
	request, err := http.NewRequest(http.MethodGet, api+"/v1/revisions", http.NoBody)
	if err != nil {
		log.Fatal(err)
	}
	client := sse.Client{Backoff: sse.Backoff{MaxInterval: 10 * time.Second}}
	connection := client.NewConnection(request)
	// Subscribe by name: `place` and names of later versions are no revisions.
	connection.SubscribeEvent("revision", func(event sse.Event) {
		var r revision
		if err := json.Unmarshal([]byte(event.Data), &r); err != nil {
			log.Print(err)
			return
		}
		fmt.Printf("%s#%d %s\n", r.Subject, r.Data.Revision, r.Data.Digest)
	})
	for {
		// Ends if the answer is an error, such as 503 while the api waits for Postgres.
		log.Print(connection.Connect())
		time.Sleep(time.Second)
	}
}
