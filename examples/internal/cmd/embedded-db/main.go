// Command embedded serves the examples' in-memory database by itself: it prints the DSN and runs until its standard
// input ends. The library's tests start it where no MariaDB or MySQL is installed.
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
