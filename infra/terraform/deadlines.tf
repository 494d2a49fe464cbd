# Every time in the cloud side, in seconds, in one table. What must hold, and is tested in infra/policy:
#
#   linger + tries x call + bury  <  answer  <  ack      so that Pub/Sub never gives a push up that is still being worked on
#   answer + 5 (to write it)     <=  request             so that Cloud Run does not cut it off
locals {
  deadlines = {
    linger  = 0.05 # a push waits for others to go with it (FORWARD_LINGER)
    call    = 10   # one call to a receiver (FORWARD_CALL_TIMEOUT)
    bury    = 10   # publishing a dead letter (DEAD_LETTERS_TIMEOUT)
    answer  = 45   # a push, from request to answer (FORWARD_TIMEOUT)
    ack     = 60   # the subscription's ack deadline, which is the push request's timeout at Pub/Sub (FORWARD_ACK_DEADLINE)
    request = 60   # Cloud Run's timeout of a request

    check  = 60  # between two checks of a receiver (HEALTH_CHECK_EVERY)
    canary = 300 # between two canaries (HEALTH_CANARY_EVERY); every subscription gets them, whatever its filter

    # An alert should not wait long once its receiver is back. 600 is the service's longest backoff.
    retry = {
      events = { min = 10, max = 600 }
      alerts = { min = 2, max = 300 }
    }
    attempts = 100 # the most that the service allows; alerts: 8 hours of outage, events: 16

    keep       = 604800  # messages that wait in a subscription: 7 days
    keep_dead  = 2678400 # dead letters: 31 days, the most that the service allows
    keep_topic = 86400   # what a new subscription, or one of which the filter was changed, can go back to
  }
}
