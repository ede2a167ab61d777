# One job for each generation. Nomad restarts a service whatever it ends with, 0
# too, and has no rules on exit codes. So the entrypoint parks what was
# superseded, and does the restarts itself.
job "kv-g8" {
  type = "service"

  group "kv" {
    count = 2 # one leads, the other is its standby

    network {
      port "redis" {
        to = 6380
      }
    }

    # For the entrypoint itself. It is killed, if at all, for want of memory.
    restart {
      attempts = 3
      interval = "5m"
      delay    = "15s"
      mode     = "delay"
    }

    # A rollout goes on when the new tasks are ready, not when they lead.
    update {
      health_check     = "checks"
      min_healthy_time = "5s"
      healthy_deadline = "10m"
    }

    service {
      name     = "kv"
      port     = "redis"
      provider = "consul"

      check {
        name     = "standby"
        type     = "script"
        task     = "kv"
        command  = "fencepost"
        args     = ["health", "standby", "--timeout=4s"]
        interval = "5s"
        timeout  = "5s"
      }
    }

    task "kv" {
      driver = "docker"

      config {
        image   = "registry.example.com/kv:8"
        command = "fencepost"
        args    = ["run", "--stop-grace=20s", "--", "kvserver", "-listen", "0.0.0.0:6380"]
        ports   = ["redis"]
      }

      # Above --stop-grace and the 5 s from SIGKILL until run gives up. A client
      # allows 30 s at most, unless its max_kill_timeout says more.
      kill_timeout = "30s"

      env {
        FENCEPOST_GENERATION = "8"
        FENCEPOST_ADMIN      = "127.0.0.1:7001"
      }

      template {
        data        = "FENCEPOST_STORE={{ with nomadVar \"nomad/jobs/kv\" }}{{ .store }}{{ end }}"
        destination = "secrets/store.env"
        env         = true
      }
    }
  }
}
