package policy

import "fmt"

// Subscriptions returns what is wrong with subscriptions and dead letters: a subscription that expires, pushes without an
// identity or its audience, dead letters without both of Pub/Sub's grants, or to a topic of which nobody reads.
func Subscriptions(c *Config) (faults []string) {
	for _, c := range c.all() {
		for _, address := range c.of("google_pubsub_subscription") {
			for _, fault := range c.subscription(address) {
				faults = append(faults, address+": "+fault)
			}
		}
	}
	return faults
}

func (c *Config) subscription(address string) (faults []string) {
	b := c.resources[address].Body
	if expiry := block(b, "expiration_policy"); expiry == nil {
		faults = append(faults, `expires after 31 idle days; write expiration_policy { ttl = "" }`)
	} else if ttl, ok := text(expiry, "ttl"); !ok || ttl != "" {
		faults = append(faults, `expires; write ttl = ""`)
	}
	if push := block(b, "push_config"); push != nil {
		if token := block(push, "oidc_token"); token == nil || token.Attributes["audience"] == nil || token.Attributes["service_account_email"] == nil {
			faults = append(faults, "pushes without an identity and an audience of its own")
		}
	}
	dead := block(b, "dead_letter_policy")
	if dead == nil {
		return faults
	}
	topic := dead.Attributes["dead_letter_topic"]
	if topic == nil || len(topic.Expr.Variables()) != 1 {
		return append(faults, "has no dead_letter_topic of this configuration")
	}
	name := fmt.Sprintf("%s.%s", topic.Expr.Variables()[0].RootName(), attr(topic.Expr.Variables()[0]))
	if !c.granted("google_pubsub_topic_iam_member", "topic", name, `"roles/pubsub.publisher"`, "") {
		faults = append(faults, "Pub/Sub's agent may not publish to "+name)
	}
	if !c.granted("google_pubsub_subscription_iam_member", "subscription", address, `"roles/pubsub.subscriber"`, c.argument(b, "for_each")) {
		faults = append(faults, "Pub/Sub's agent may not acknowledge here what it puts away")
	}
	read := false
	for _, other := range c.of("google_pubsub_subscription") {
		o := c.resources[other].Body
		read = read || o.Attributes["topic"] != nil && refersTo(o.Attributes["topic"].Expr, name) && block(o, "dead_letter_policy") == nil
	}
	if !read {
		faults = append(faults, name+" has no subscription that keeps the dead letters")
	}
	return faults
}

// granted reports whether Pub/Sub's agent has a role on what on refers to, each of them when there are many.
func (c *Config) granted(kind, on, address, role, many string) bool {
	for _, grant := range c.of(kind) {
		b := c.resources[grant].Body
		if a := b.Attributes[on]; a != nil && refersTo(a.Expr, address) && c.argument(b, "role") == role &&
			c.argument(b, "member") == "var.agent" && c.argument(b, "for_each") == many {
			return true
		}
	}
	return false
}
