// Command embedded-db serves the examples' in-memory database. It prints the
// DSN and runs until its standard input is closed. The library's tests start it
// where neither MariaDB nor MySQL is installed.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/candysession/session/examples/internal/embedded"
)

func main() {
	server, err := embedded.Start()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(server.DSN())
	io.Copy(io.Discard, os.Stdin)
	if err := server.Close(); err != nil {
		log.Fatal(err)
	}
}
