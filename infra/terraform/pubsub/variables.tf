variable "project" {
  description = "Of the topics."
  type        = string
}

variable "labels" {
  description = "On everything."
  type        = map(string)
}

variable "agent" {
  description = "Pub/Sub's own service agent, as a member."
  type        = string
}

variable "deadlines" {
  description = "Of deadlines.tf."
  type = object({
    ack        = number
    attempts   = number
    keep       = number
    keep_dead  = number
    keep_topic = number
    retry      = map(object({ min = number, max = number }))
  })
}

variable "ways" {
  description = "An integration's part of a topic, by \"<topic>-<integration>\"."
  type        = map(object({ topic = string, function = string, integration = string, filter = string }))
}

variable "functions" {
  description = "Where pushes go, and as whom: forward, notify, health."
  type        = map(object({ uri = string, pusher = string }))
}
