// Requests a restore and waits for its result.
//
//	go mod init example && go get cloud.google.com/go/pubsub/v2
//	GOOGLE_CLOUD_PROJECT=my-project go run . orders/2026-11-22.dump orders_copy
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"cloud.google.com/go/pubsub/v2"
)

type result struct {
	RequestID       string  `json:"request_id"`
	Status          string  `json:"status"`
	Rows            int64   `json:"rows"`
	DurationSeconds float64 `json:"duration_seconds"`
	Error           *struct {
		Reason  string `json:"reason"`
		Blame   string `json:"blame"`
		Message string `json:"message"`
	} `json:"error"`
}

func main() {
	ctx, done := context.WithCancel(context.Background())
	defer done()
	backup, target := os.Args[1], os.Args[2]
	client, err := pubsub.NewClient(ctx, os.Getenv("GOOGLE_CLOUD_PROJECT"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	// Use each id once: a second request with it gets the recorded result.
	id := fmt.Sprintf("example-%d", os.Getpid())
	body, err := json.Marshal(map[string]any{
		"request_id": id,
		"backup":     map[string]string{"name": backup},
		"target_db":  target,
	})
	if err != nil {
		log.Fatal(err)
	}
	sent := client.Publisher("restore-requests").Publish(ctx, &pubsub.Message{
		Data:       body,
		Attributes: map[string]string{"request_id": id},
	})
	if _, err := sent.Get(ctx); err != nil {
		log.Fatal(err)
	}

	var answer result
	err = client.Subscriber("restore-completions").Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		// Results of other requests stay in the subscription.
		if m.Attributes["request_id"] != id || json.Unmarshal(m.Data, &answer) != nil {
			m.Nack()
			return
		}
		m.Ack()
		done()
	})
	if err != nil {
		log.Fatal(err)
	}
	if answer.Error != nil {
		log.Fatalf("not restored: %s (blame: %s): %s", answer.Error.Reason, answer.Error.Blame, answer.Error.Message)
	}
	fmt.Printf("restored %s into %s: %d rows in %.1f s\n", backup, target, answer.Rows, answer.DurationSeconds)
}
