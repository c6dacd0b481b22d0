// H5Web in an element, behind our provider. React stays in here.
import { App, DataProvider, enableBigIntSerialization, useDataContext } from '@h5web/app';
import { type ReactElement, useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import { MembersContext } from './contents';
import type { Provider } from './provider';

enableBigIntSerialization();

/** Hands H5Web's store to the provider, and says when the tree beside the plot is looked at. */
function Wiring({ provider, el }: { provider: Provider; el: HTMLElement }): null {
  const { valuesStore } = useDataContext();
  provider.store = valuesStore;
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      if (entry.contentRect.width > 0) {
        provider.listScope();
      }
    });
    const tree = el.querySelector('[role="tree"]');
    if (tree) {
      observer.observe(tree);
    }
    return () => observer.disconnect();
  }, [provider, el]);
  return null;
}

function Viewer(properties: { provider: Provider; path: string; el: HTMLElement }): ReactElement {
  const { provider, path, el } = properties;
  return (
    <MembersContext.Provider value={provider}>
      <DataProvider api={provider}>
        <App initialPath={path} sidebarOpen={false} disableDarkMode />
        <Wiring provider={provider} el={el} />
      </DataProvider>
    </MembersContext.Provider>
  );
}

/** Shows `path` of the provider in `el`; what is returned takes it away. */
export function showH5Web(el: HTMLElement, provider: Provider, path: string): () => void {
  const root = createRoot(el);
  root.render(<Viewer provider={provider} path={path} el={el} />);
  return () => root.unmount();
}
