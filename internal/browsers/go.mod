module github.com/candysession/session/internal/browsers

go 1.25.0

require (
	github.com/candysession/session v0.0.0
	github.com/coder/websocket v1.8.15
	github.com/jmoiron/sqlx v1.4.0
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/go-sql-driver/mysql v1.10.1 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
	golang.org/x/crypto v0.45.0 // indirect
	golang.org/x/text v0.31.0 // indirect
)

replace github.com/candysession/session => ../..
