package token

import "container/list"

// maxRecent bounds the strings of a recent set.
const maxRecent = 4096

// A recent set holds the strings that were added last. The zero value is empty.
type recent struct {
	order    list.List // most recent first
	elements map[string]*list.Element
}

// add adds s, or marks it as the most recent one. It removes the least recent
// string of a full set.
func (r *recent) add(s string) {
	if e, ok := r.elements[s]; ok {
		r.order.MoveToFront(e)
		return
	}
	if r.elements == nil {
		r.elements = map[string]*list.Element{}
	}
	if len(r.elements) == maxRecent {
		r.remove(r.order.Back().Value.(string))
	}
	r.elements[s] = r.order.PushFront(s)
}

// remove removes s.
func (r *recent) remove(s string) {
	if e, ok := r.elements[s]; ok {
		r.order.Remove(e)
		delete(r.elements, s)
	}
}

// contains reports whether the set has s.
func (r *recent) contains(s string) bool {
	_, ok := r.elements[s]
	return ok
}
