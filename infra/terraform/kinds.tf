# What Terraform knows of the kinds of integrations. infra/policy compares it with functions/internal/integrations.
locals {
  kinds = {
    discord = {
      keys     = ["webhook_url"]
      secrets  = ["webhook_url"]
      required = ["webhook_url"]
      events   = false
    }
    email = {
      keys     = ["host", "port", "tls", "username", "password", "from", "to", "timeout"]
      secrets  = ["password"]
      required = ["host", "from", "to"]
      events   = false
    }
    pagerduty = {
      keys     = ["routing_key", "region"]
      secrets  = ["routing_key"]
      required = ["routing_key"]
      events   = false
    }
    slack = {
      keys     = ["webhook_url", "bot_token", "channel", "gov"]
      secrets  = ["webhook_url", "bot_token"]
      required = []
      events   = false
    }
    sweetsecurity = {
      keys     = ["endpoint", "api_key"]
      secrets  = ["api_key"]
      required = ["endpoint", "api_key"]
      events   = true
    }
    webhook = {
      keys = ["url", "secret", "previous_secret", "unsigned", "headers", "secret_headers", "body", "content_type", "max_body",
      "events", "allow_private", "timeout"]
      secrets  = ["url", "secret", "previous_secret"]
      required = ["url"]
      events   = false # unless its settings say so
    }
  }

  # Keys that every integration has, and those of them that hold keys.
  common_keys = ["name", "kind", "enabled", "route", "rate", "group", "canary"]
  inner_keys = {
    route = ["min_severity", "types", "rules", "namespaces", "clusters"]
    rate  = ["per_minute", "burst"]
    group = ["window", "resolve_after", "digest_every"]
  }

  severities = ["INFO", "LOW", "MEDIUM", "HIGH", "CRITICAL"]
  event_types = [
    "process_exec", "process_exit", "file_create", "file_modify", "file_delete", "file_rename", "file_chmod", "file_chown",
    "file_read", "network_connect", "network_listen", "network_close", "admission_pod", "admission_exec", "agent_heartbeat",
    "agent_coverage", "integration_test",
  ]

  secret_reference = "^secret://projects/[a-z][a-z0-9-]*[a-z0-9]/secrets/[A-Za-z0-9_-]{1,255}/versions/([0-9]+|[A-Za-z][A-Za-z0-9_-]{0,62})$"
}
