package testdb

import "syscall"

// killWithParent returns attributes that kill a child process when its parent
// ends.
func killWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
