module github.com/apss-sensor/apss/functions

go 1.26.0

replace github.com/apss-sensor/apss/shared => ../shared
