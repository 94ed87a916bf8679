module github.com/candysession/session

go 1.26.0

require (
	github.com/go-sql-driver/mysql v1.10.1
	github.com/hashicorp/golang-lru/v2 v2.0.7
	github.com/jmoiron/sqlx v1.4.0
	golang.org/x/crypto v0.58.0
	golang.org/x/text v0.43.0
)

require filippo.io/edwards25519 v1.2.0 // indirect
