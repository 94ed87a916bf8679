package session

import (
	"fmt"
	"maps"
	"slices"
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

func loginOptionsOf(options []LoginOption) (o loginOptions) {
	for _, option := range options {
		option.login(&o)
	}
	return o
}

func registerOptionsOf(options []RegisterOption) (o registerOptions) {
	for _, option := range options {
		option.register(&o)
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

// check reports a field that the options do not allow.
func (o *registerOptions) check(fields Fields) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if o.columns != nil && !slices.Contains(o.columns, name) {
			return fmt.Errorf("%w: Register: the field %q is not among the Columns %q", ErrInvalidArgument, name, o.columns)
		}
	}
	return nil
}
