module github.com/candysession/session

go 1.25.0

require (
	github.com/go-sql-driver/mysql v1.9.3
	github.com/hashicorp/golang-lru/v2 v2.0.3
	github.com/jmoiron/sqlx v1.3.5
	golang.org/x/crypto v0.45.0
	golang.org/x/text v0.31.0
)

require filippo.io/edwards25519 v1.1.1 // indirect
