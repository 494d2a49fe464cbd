package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// The parts of SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3) that an SBOM of a static Go program has.
type (
	spdx struct {
		Version       string             `json:"spdxVersion"`
		License       string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID       string          `json:"SPDXID"`
		Name     string          `json:"name"`
		Version  string          `json:"versionInfo"`
		Location string          `json:"downloadLocation"`
		Analyzed bool            `json:"filesAnalyzed"`
		Checksum []spdxChecksum  `json:"checksums,omitempty"`
		Refs     []spdxReference `json:"externalRefs,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxReference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

// sbom lists what p was built from: what the Go toolchain wrote into it.
func (p *program) sbom(version string, made time.Time) ([]byte, error) {
	sum := fmt.Sprintf("%x", sha256.Sum256(p.content))
	const noAssertion = "NOASSERTION"
	d := spdx{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: p.name,
		Namespace: "https://github.com/apss-sensor/apss/sbom/" + p.name + "-" + sum,
		Creation:  spdxCreation{made.Format(time.RFC3339), []string{"Tool: apss-images"}},
		Packages: []spdxPackage{{
			ID: "SPDXRef-Program", Name: p.name, Version: version, Location: noAssertion,
			Checksum: []spdxChecksum{{"SHA256", sum}},
		}},
		Relationships: []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Program"}},
	}
	modules := append([]*debug.Module{{Path: "stdlib", Version: strings.TrimPrefix(p.build.GoVersion, "go")}}, p.build.Deps...)
	for i, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		if strings.HasPrefix(m.Path, ".") {
			continue // a module of this repository, which the program's version stands for
		}
		id := fmt.Sprintf("SPDXRef-Module-%d", i)
		d.Packages = append(d.Packages, spdxPackage{
			ID: id, Name: m.Path, Version: m.Version, Location: noAssertion,
			Refs: []spdxReference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + m.Version}},
		})
		d.Relationships = append(d.Relationships, spdxRelationship{"SPDXRef-Program", "DEPENDS_ON", id})
	}
	return json.MarshalIndent(d, "", "  ")
}
