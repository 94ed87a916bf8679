package main

func (b *bench) cached(*report) error      { return nil }
func (b *bench) firstCheck(*report) error  { return nil }
func (b *bench) login(*report) error       { return nil }
func (b *bench) purge(*report) error       { return nil }
func (b *bench) size(*report) error        { return nil }
func (b *bench) memory(*report) error      { return nil }
func (b *bench) wholeServer(*report) error { return nil }
func beClient(string, string) error        { return nil }
