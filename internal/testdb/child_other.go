//go:build !linux

package testdb

import "syscall"

// killWithParent returns no attributes, because only Linux supports this. On
// other systems a test program that is killed leaves its server running.
func killWithParent() *syscall.SysProcAttr { return nil }
