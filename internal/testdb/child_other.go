//go:build !linux

package testdb

import "syscall"

// dieWithParent: only Linux has it. Elsewhere a test program that is killed leaves its server behind.
func dieWithParent() *syscall.SysProcAttr { return nil }
