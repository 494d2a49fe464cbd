module github.com/apss-sensor/apss/infra/local

go 1.26.0

replace github.com/apss-sensor/apss/shared => ../../shared
