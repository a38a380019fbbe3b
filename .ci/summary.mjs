// Prints how many tests passed, failed and were skipped, and fails unless every one of them has run.
// usage: node summary.mjs REPORT.json
import { readFileSync } from 'node:fs';

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const skipped = report.numPendingTests + report.numTodoTests;
for (const file of report.testResults) {
  for (const { status, fullName } of file.assertionResults) {
    if (status !== 'passed') console.log(`${status}: ${fullName}`);
  }
}
console.log(`${report.numPassedTests} passed, ${report.numFailedTests} failed, ${skipped} skipped`);
process.exitCode = report.success && skipped === 0 && report.numPassedTests > 0 ? 0 : 1;
