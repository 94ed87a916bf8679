package session

import (
	"fmt"
	"time"
)

// A LoginOption changes one login: that of [Manager.Login], [Manager.LoginAs] or
// [Manager.Register].
type LoginOption interface {
	RegisterOption
	login(*loginOptions)
}

// A RegisterOption changes one call of [Manager.Register]. Every [LoginOption]
// is one.
type RegisterOption interface {
	register(*registerOptions)
}

type loginOptions struct {
	transient bool
	short     bool          // whether maxAge counts instead of Config.MaxAge
	maxAge    time.Duration // the idle timeout
}

type registerOptions struct {
	login   []LoginOption
	noLogin bool
	columns []string // that the fields may set; nil for all
}

// loginOption implements LoginOption.
type loginOption func(*loginOptions)

func (f loginOption) login(o *loginOptions)       { f(o) }
func (f loginOption) register(o *registerOptions) { o.login = append(o.login, f) }

// registerOption implements RegisterOption.
type registerOption func(*registerOptions)

func (f registerOption) register(o *registerOptions) { f(o) }

func loginOptionsOf(options []LoginOption, cfg *Config) (o loginOptions, err error) {
	for _, option := range options {
		if option != nil {
			option.login(&o)
		}
	}
	if o.short && (o.maxAge < time.Second || o.maxAge > cfg.MaxAge) {
		return o, fmt.Errorf("%w: session.MaxAge(%v) must be from one second to Config.MaxAge, %v", ErrInvalidArgument, o.maxAge, cfg.MaxAge)
	}
	return o, nil
}

// Transient returns an option with which the browser deletes the session cookie
// when it exits. It serves a login without "remember me". The session itself
// still lasts Config.MaxAge, unless [MaxAge] is an option too.
func Transient() LoginOption {
	return loginOption(func(o *loginOptions) { o.transient = true })
}

// MaxAge returns an option that sets the idle timeout of one session: at least
// one second, and at most Config.MaxAge. An active session is renewed after half
// of it, or after Config.UpdateAge if that is less. The purge deletes the row
// after Config.MaxAge.
func MaxAge(d time.Duration) LoginOption {
	return loginOption(func(o *loginOptions) { o.short, o.maxAge = true, d })
}

func registerOptionsOf(options []RegisterOption) (o registerOptions) {
	for _, option := range options {
		if option != nil {
			option.register(&o)
		}
	}
	return o
}

// NoLogin returns an option with which [Manager.Register] starts no session, for
// example until the email address is confirmed.
func NoLogin() RegisterOption {
	return registerOption(func(o *registerOptions) { o.noLogin = true })
}

// Columns returns an option with which [Manager.Register] accepts only the named
// fields, and returns [ErrInvalidArgument] for others. It serves apps that copy
// a form into [Fields]: without it, the sender of a form could set every column,
// such as one of an administrator (OWASP Mass Assignment Cheat Sheet).
func Columns(names ...string) RegisterOption {
	return registerOption(func(o *registerOptions) { o.columns = append([]string{}, names...) })
}
