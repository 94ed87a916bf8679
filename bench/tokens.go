package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/candysession/session"
	"golang.org/x/crypto/bcrypt"
)

// expired returns the number of expired rows to purge.
func expired() int {
	if *quick {
		return 10_000
	}
	return 1_000_000
}

// tokens creates a token table that contains the given number of expired
// sessions, and returns a configuration that uses it.
func (b *bench) tokens(name string, expired int) (cfg session.Config, err error) {
	cfg = session.Config{TokenTable: name}
	auth, err := b.manager(cfg)
	if err != nil {
		return cfg, err
	}
	defer auth.Close()
	b.admin.MustExec("DROP TABLE IF EXISTS app." + name)
	if _, err := auth.Migrate(context.Background()); err != nil {
		return cfg, err
	}
	return cfg, b.fill(name, expired, "NOW() - INTERVAL (3000000 + seq % 1000000) SECOND")
}

// verifier is the verifier of every row that fill inserts.
const verifier = "VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVV"

// selector returns the selector of row i that fill inserted.
func selector(i int) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(i)))
	return hex.EncodeToString(sum[:])[:22]
}

// fill inserts n sessions. Their selectors are hashes, so that they are spread
// over the index like random ones.
func (b *bench) fill(table string, n int, active string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(verifier), bcrypt.MinCost)
	if err != nil {
		return err
	}
	const step = 250_000
	for from := 1; from <= n; from += step {
		_, err := b.admin.Exec(fmt.Sprintf("INSERT INTO app.%s (user, token_x, token_y, browser, ip, active) SELECT 1 + seq %% %d, LEFT(SHA2(seq, 256), 22), ?, ?, '203.0.113.7', %s FROM app.seq_%d_to_%d",
			table, users, active, from, min(n, from+step-1)), string(hash), userAgent)
		if err != nil {
			return err
		}
	}
	_, err = b.admin.Exec("ANALYZE TABLE app." + table)
	return err
}
