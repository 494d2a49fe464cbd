package token

import "time"

// An address, which is one pod's in most networks and a node's in some, may have so many tokens refused at once, and one
// more each second; who has just one new token, and a good one, pays nothing.
const addressBurst = reviewBurst / 2

// debt is what an address owes: a review for each token that was refused or is being looked at.
type debt struct {
	level float64
	at    time.Time
}

func (d debt) now(now time.Time) float64 { return max(d.level-max(now.Sub(d.at).Seconds(), 0), 0) }

// charge reports whether the API server may be asked about token k from an address, and counts that it is. A token that is
// kept is asked about in any case: nobody lengthens a deleted pod's life by sending rubbish beside it.
func (r *Reviewer) charge(from string, k key, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	level := r.from[from].now(now)
	if level > addressBurst-1 && r.proofs[k] == nil {
		return false
	}
	makeRoom(r.from, func(d debt) bool { return d.now(now) == 0 })
	r.from[from] = debt{level + 1, now}
	return true
}

// refund takes a charge back: the token was good, or nobody could tell.
func (r *Reviewer) refund(from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.from[from]; ok {
		d.level--
		r.from[from] = d
	}
}
