package store

import "time"

// Another app that renews a session writes its own local time as text, which
// the database reads in the time zone of the connection. Where the two zones
// differ, active is off by the hours between them, 26 at most.
const (
	maxSkew     = 26 * 60 * 60
	quarterHour = 15 * 60

	// ClockError is by how much the clocks of two machines may differ, in
	// seconds.
	ClockError = 60
)

// lastActive returns when a session was last renewed, as far as that is
// credible: not before its login, and not in a future that no time zone
// explains, which would keep it for ever.
func (r *Record) lastActive() int64 {
	if r.Active > r.Now+maxSkew {
		return r.Created
	}
	return max(r.Active, r.Created)
}

// skew returns by how much, at least, the time zone of the app that wrote
// active differs from the database's; 0 if nothing shows it. Zones differ by
// whole quarter hours.
func (r *Record) skew() time.Duration {
	ahead, behind := r.Active-r.Now, r.Created-r.Active
	quarters := func(seconds int64) time.Duration {
		return time.Duration((seconds-ClockError+quarterHour-1)/quarterHour) * quarterHour * time.Second
	}
	switch {
	case ahead > quarterHour-ClockError && ahead <= maxSkew+ClockError:
		return quarters(ahead)
	case behind > quarterHour-ClockError && behind <= maxSkew+ClockError:
		return -quarters(behind)
	}
	return 0
}

// reconcile corrects what another app has written of a session's times, and
// reports the first time of another zone.
func (s *Store) reconcile(r *Record) {
	if s.cfg.Skewed == nil {
		return
	}
	if skew := r.skew(); skew != 0 && s.warnedSkew.CompareAndSwap(false, true) {
		s.cfg.Skewed(s.PublicID(r), skew)
	}
	r.Active = r.lastActive()
}
