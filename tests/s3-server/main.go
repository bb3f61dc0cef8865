// An object store in memory that speaks S3: s3-server HOST:PORT BUCKET…
//
// What the tests back up to. It takes every key and every signature, and forgets all when it ends.
package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "s3-server:", err)
		os.Exit(1)
	}
}

func serve(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("usage: s3-server HOST:PORT BUCKET")
	}
	store := s3mem.New()
	for _, bucket := range arguments[1:] {
		if err := store.CreateBucket(bucket); err != nil {
			return fmt.Errorf("make bucket %s: %w", bucket, err)
		}
	}
	return http.ListenAndServe(arguments[0], gofakes3.New(store).Server())
}
