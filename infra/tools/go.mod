module github.com/apss-sensor/apss/infra/tools

go 1.26.0
