// Package testhook gives package sessiontest access to the database of a
// Manager, without a method that an app could call.
package testhook

import (
	"context"
	"net/http"
	"time"
)

// Age moves the login and the last renewal of a request's session back in time.
// The first argument is the *session.Manager. Package session sets Age.
var Age func(ctx context.Context, manager any, r *http.Request, by time.Duration) error
