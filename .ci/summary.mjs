// Prints how many tests passed, failed and were skipped, and fails unless every one of them has run.
// usage: node summary.mjs REPORT.json...
import { readFileSync } from 'node:fs';

const total = { passed: 0, failed: 0, skipped: 0 };
let whole = true;
for (const path of process.argv.slice(2)) {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  total.passed += report.numPassedTests;
  total.failed += report.numFailedTests;
  total.skipped += report.numPendingTests + report.numTodoTests;
  whole &&= report.success && report.numPassedTests > 0;
  for (const { name, status, message, assertionResults } of report.testResults) {
    if (status === 'failed' && message) console.log(`failed: ${name}: ${message}`);
    for (const result of assertionResults) {
      if (result.status !== 'passed') console.log(`${result.status}: ${result.fullName}`);
    }
  }
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = whole && total.failed === 0 && total.skipped === 0 ? 0 : 1;
