package main

import (
	"io"

	"github.com/apss-sensor/apss/shared/setting"
)

const usage = `apss-agent senses files, processes and connections and publishes events.

  apss-agent              run until SIGTERM or SIGINT
  apss-agent probe        print what an agent with these settings may see here, by which mechanisms, and why not more;
                          -json: as JSON
  apss-agent test         publish one marked event, as these settings say, and wait until it is confirmed
  apss-agent spool DIR    print the events and alerts below DIR that are not confirmed, as NDJSON; changes nothing
  apss-agent -version     print the version
  apss-agent -help        print this

Exit codes: 0 ended as asked, 1 failed while running, 2 wrong settings or usage.

Settings, from the environment:

`

// printHelp prints the usage and one line for each setting.
func printHelp(w io.Writer) error {
	if _, err := io.WriteString(w, usage); err != nil {
		return err
	}
	return setting.Help(w, settings{}, computed())
}
